"""Small facts that need no picture, written by us: a question and its answer."""

from __future__ import annotations

FACTS = tuple(
    (question.strip(), answer.strip())
    for question, answer in (
        line.split("|")
        for line in """
How many legs does a spider have?|Eight
How many legs does an insect have?|Six
How many days are in a week?|Seven
How many months are in a year?|Twelve
How many hours are in a day?|24
How many minutes are in an hour?|60
How many seconds are in a minute?|60
How many days does a leap year have?|366
How many sides does a triangle have?|Three
How many sides does a hexagon have?|Six
How many sides does an octagon have?|Eight
How many corners does a cube have?|Eight
How many faces does a cube have?|Six
How many edges does a cube have?|Twelve
How many strings does a violin have?|Four
How many letters does the English alphabet have?|26
How many wheels does a tricycle have?|Three
How many players of one team are on the field in football?|Eleven
How many squares does a chess board have?|64
Which colour do red and yellow make?|Orange
Which colour do red and blue make?|Purple
Which colour do black and white make?|Grey
Which colour do red and white make?|Pink
What do bees make from nectar?|Honey
What do caterpillars turn into?|Butterflies or moths
What do tadpoles turn into?|Frogs or toads
What is a young cat called?|A kitten
What is a young dog called?|A puppy
What is a young sheep called?|A lamb
What is a young horse called?|A foal
What is a young cow called?|A calf
What is a young goose called?|A gosling
What is a young swan called?|A cygnet
What is a female horse called?|A mare
What is a male duck called?|A drake
What is frozen water called?|Ice
What is water called when it is a gas?|Steam
At how many degrees Celsius does water freeze?|0
At how many degrees Celsius does water boil at sea level?|100
Which planet do we live on?|Earth
Which planet is nearest to the sun?|Mercury
Which planet is the largest of the solar system?|Jupiter
Which planet is known for its wide rings?|Saturn
What goes around the earth about once a month?|The moon
Which star is nearest to the earth?|The sun
In which direction does the sun rise?|In the east
In which direction does the sun set?|In the west
Which direction is opposite to north?|South
Which season follows winter?|Spring
Which season follows summer?|Autumn
Which month is the shortest?|February
What is the chemical formula of water?|H2O
Which gas do plants take from the air to grow?|Carbon dioxide
Which gas do we need to breathe?|Oxygen
What is the hardest natural material?|Diamond
Which metal is liquid at room temperature?|Mercury
What does a thermometer measure?|Temperature
What does a barometer measure?|Air pressure
What does a clock measure?|Time
What does a ruler measure?|Length
What does a scale measure?|Weight
What does a compass show?|Where north is
What is bread mostly made of?|Flour and water
What is paper mostly made of?|Wood
What is glass made of?|Sand
What is butter made of?|Cream
What is wine made of?|Grapes
What is a raisin?|A dried grape
What is a prune?|A dried plum
Which animal is the tallest?|The giraffe
Which animal is the largest?|The blue whale
Which land animal is the fastest?|The cheetah
Which bird cannot fly but swims well?|The penguin
Which bird is the largest?|The ostrich
Which animal carries its house on its back and leaves a trail of slime?|The snail
Which animal builds dams in rivers?|The beaver
What do pandas eat most of all?|Bamboo
What do koalas eat?|Eucalyptus leaves
Who mends water pipes?|A plumber
Who sells medicine?|A pharmacist
Who looks after teeth?|A dentist
Who bakes bread?|A baker
Who flies an aeroplane?|A pilot
Who makes clothes to measure?|A tailor
Who looks after the books of a library?|A librarian
Who draws the plans of houses?|An architect
Where are ships loaded and unloaded?|In a harbour
Where do trains stop?|At a station
Where are old things shown to visitors?|In a museum
Where do planes land?|At an airport
What do you open a lock with?|A key
What do you drive a nail in with?|A hammer
What do you cut paper with?|Scissors
What do you cut wood with?|A saw
What do you eat soup with?|A spoon
What keeps rain off your head when you walk?|An umbrella
What is the opposite of hot?|Cold
What is the opposite of early?|Late
What is the opposite of empty?|Full
What is the opposite of heavy?|Light
What is the opposite of narrow?|Wide
What is the opposite of rough?|Smooth
What is the opposite of ancient?|Modern
What is the opposite of to buy?|To sell
What is the opposite of to remember?|To forget
What is the opposite of to arrive?|To leave
What is the plural of "child"?|Children
What is the plural of "mouse"?|Mice
What is the plural of "foot"?|Feet
What is the plural of "leaf"?|Leaves
What is the plural of "goose"?|Geese
What is the plural of "knife"?|Knives
What is the past tense of "go"?|Went
What is the past tense of "write"?|Wrote
What is the past tense of "bring"?|Brought
What is the past tense of "swim"?|Swam
What is the past tense of "teach"?|Taught
What is the past tense of "fly"?|Flew
How many centimetres are in a metre?|100
How many metres are in a kilometre?|1000
How many grams are in a kilogram?|1000
How many millilitres are in a litre?|1000
How many eggs are in a dozen?|Twelve
How many years are in a century?|100
How many years are in a decade?|Ten
How many degrees does a right angle have?|90
How many degrees does a full circle have?|360
""".strip().splitlines()
    )
)
"""Question and answer."""

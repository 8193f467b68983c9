"""Word lists of our own. Single words are everybody's; what is made of them belongs to one split (`lot.split_of`)."""

from __future__ import annotations

FIRST_NAMES = """
Ada Agnes Alan Albert Alice Amara Amir Anna Anton Arthur Astrid Aziz Beatrice Bela Ben Bruno Carla Carlos Cecil Chandra
Clara Colin Daniel Daria David Diana Dimitri Dora Edgar Edith Elena Elias Ella Emil Emma Erik Esther Eva Farah Felix
Fiona Flora Frank Freya Gabriel George Gita Grace Greta Hana Hannah Harold Hassan Helen Henry Hugo Ida Ines Irene Iris
Isaac Ivan Jacob James Jana Jasper Joan Jonas Judith Julia Karim Karl Kate Keiko Laila Lars Laura Leo Leila Lena Liam
Lina Louis Lucia Luke Maya Marco Maria Marta Martin Mary Max Mei Mina Mira Nadia Naomi Nina Noah Nora Olga Oliver Omar
Oscar Otto Paula Pedro Peter Philip Priya Rafael Ravi Rita Robert Rosa Ruth Samir Sara Simon Sofia Stella Tariq Tessa
Theo Thomas Uma Vera Victor Viola Walter Wanda Yara Yusuf Zara Zoe
""".split()

SURNAME_STARTS = """
Al Ander Ash Bar Bel Ben Ber Black Bor Bram Bren Cal Car Chad Col Cor Dal Dar Den Dor Dun El Ever Fair Fal Fen Fer Gal
Gar Gil Gold Gran Hal Har Hart Hol Hurst Ing Jar Jor Kal Kel Ken Kor Lam Lang Lar Lind Lor Mal Mar Mel Mer Mon Nor Oak
Or Pal Par Pel Quin Ral Ran Red Ren Ros Row Sal San Sel Shel Stan Ster Tal Tar Ther Thorn Tor Val Van Ver Wal War Wel
Whit Wil Win Wy Yar
""".split()

SURNAME_ENDS = """
berg bery bourne brook bury by cott dale den der dine do don dorf ell en er ey field ford gan gate ham hard heim hurst
ing ini ish kin land lein ler ley lin lock man mer mond mont more ner nett ney nor over ridge ro rick row sby sen ser
shaw smith son stead stein stone sworth tano ten ter ton vall vard vey vick ville wald ward well wick win wood worth
""".split()

TOWN_STARTS = """
Amber Apple Ash Bay Birch Black Bridge Bright Broad Castle Cedar Clear Cliff Clover Cold Copper Crane Deep East Elder
Elm Fair Falcon Fern Fox Frost Glen Gold Grand Green Grey Harbor Hazel Heron High Iron Ivy Kings Lake Lark Lime Linden
Long Maple Marsh Meadow Mill Moss New North Oak Old Otter Pine Queens Raven Red River Rose Salt Sand Silver South Spring
Star Stone Summer Sun Swan Thorn Upper West White Wild Willow Winter Wolf Wood Yew
""".split()

TOWN_ENDS = """
bay borough bridge brook burn bury by castle cliff combe cross dale den field ford gate grove ham haven head hill holm
hurst keep lake land leigh ley mere mill mont moor mouth pool point port ridge shaw shore stead stone stow ton vale
view ville wall water way well wick wood worth
""".split()

STREET_ENDS = ("Street", "Road", "Lane", "Avenue", "Way", "Square", "Row", "Drive", "Court", "Hill")

SHOP_KINDS = {
    "Bakery": "bakery",
    "Books": "books",
    "Cafe": "cafe",
    "Coffee": "cafe",
    "Corner Shop": "grocery",
    "Deli": "grocery",
    "Diner": "cafe",
    "Flowers": "garden",
    "Food Hall": "grocery",
    "Garden Centre": "garden",
    "Grocers": "grocery",
    "Hardware": "hardware",
    "Kitchen": "cafe",
    "Market": "grocery",
    "Paint and Tools": "hardware",
    "Paper and Pens": "paper",
    "Pastries": "bakery",
    "Stationers": "paper",
    "Tea Room": "cafe",
}
"""Word in a shop's name -> the kind of goods that it sells."""

GOODS = {
    "bakery": """White loaf,320;Rye bread,410;Sourdough,490;Raisin bun,180;Croissant,210;Pretzel,150;Apple pie,380;
        Cheese roll,240;Seed roll,90;Plum cake,350;Walnut loaf,460;Cinnamon bun,230;Baguette,190;Carrot cake,360;
        Scone,170;Lemon tart,340;Oat biscuit,120;Poppy roll,85;Almond slice,290;Spelt loaf,520""",
    "books": """Road map,790;Cook book,1890;Poems,1250;Diary,990;Atlas,2490;Short novel,1090;Crime story,1190;
        Bird guide,1650;Puzzle book,690;Dictionary,2190;Song book,1450;Comic,590;Travel guide,1750;Calendar,890;
        Picture book,1290;Garden book,1690;Chess book,1350;History book,2290;Bookmark,190;Gift card,1500""",
    "cafe": """Coffee,280;Espresso,220;Tea,240;Hot chocolate,350;Orange juice,390;Lemonade,310;Toast,260;Omelette,690;
        Tomato soup,590;Green salad,640;Cheese sandwich,580;Pancakes,620;Porridge,430;Ice cream,370;Fruit salad,490;
        Mineral water,230;Iced tea,320;Waffle,450;Bean stew,780;Fish cakes,890""",
    "garden": """Tulips,690;Roses,990;Fern,850;Clay pot,460;Seed mix,290;Garden soil,580;Watering can,1490;Gloves,720;
        Rake,1890;Lavender,540;Ivy,490;Cactus,380;Twine,250;Plant food,640;Sunflower,330;Basil pot,220;Trowel,950;
        Bird feeder,1690;Daisies,410;Moss,310""",
    "grocery": """Milk,129;Butter,249;Eggs,289;Cheddar,399;Yoghurt,89;Apples,219;Pears,249;Bananas,159;Carrots,119;
        Onions,99;Potatoes,299;Tomatoes,269;Rice,189;Pasta,109;Flour,95;Sugar,115;Honey,459;Olive oil,699;
        Coffee beans,749;Black tea,329;Orange juice,239;Lentils,179;Spinach,169;Mushrooms,229;Salt,59;Oats,139;
        Jam,269;Crackers,199""",
    "hardware": """
        Hammer,1490;Nails,390;Screws,450;Saw,1790;Paint brush,560;White paint,2190;Tape,320;Light bulb,480;
        Battery,590;Wood glue,640;Sandpaper,270;Bucket,790;Ladder,6900;Spirit level,1290;Padlock,990;Door hinge,420;
        Pliers,1350;Wrench,1590;Rope,870;Hooks,310""",
    "paper": """Notebook,450;Pencil,90;Eraser,120;Ruler,190;Envelopes,380;Copy paper,590;Ink,850;Fountain pen,2490;
        Stapler,1150;Glue stick,230;Scissors,680;Folder,310;Sharpener,170;Marker,260;Crayons,540;Post cards,150;
        Stamps,400;Labels,360;Clips,140;Sketch pad,790""",
}
"""Kind of shop -> goods, each with a usual price in hundredths."""

MONTHS = """January February March April May June July August September October November December""".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

COMPANY_ENDS = ("Ltd", "Inc", "and Sons", "Group", "Works", "Partners", "Trading", "Supplies", "Services", "Logistics")

JOBS = """
accountant architect archivist baker biologist bookbinder cabinet maker carpenter chemist cook dentist editor
electrician engineer farmer gardener geologist journalist lawyer librarian locksmith mechanic midwife musician nurse
optician painter pharmacist photographer pilot plumber programmer surveyor tailor teacher translator
veterinarian watchmaker welder
""".replace("cabinet maker", "cabinet-maker").split()

DEGREES = ("Diploma", "BA", "BSc", "MA", "MSc", "PhD")
"""From the first to the last."""
SUBJECTS = """Biology,Chemistry,Economics,Education,Engineering,Geography,History,Law,Linguistics,Mathematics,Music,
Nursing,Philosophy,Physics,Statistics,Design,Forestry,Literature,Accounting,Architecture""".replace("\n", "").split(",")
LANGUAGES = """Arabic,Danish,Dutch,English,Finnish,French,German,Greek,Hindi,Italian,Japanese,Korean,Norwegian,Polish,
Portuguese,Spanish,Swahili,Swedish,Turkish,Welsh""".replace("\n", "").split(",")
SKILLS = """bookkeeping,budget planning,carpentry,catalogues,cooking,copy editing,customer care,data entry,drawing,
driving,event planning,first aid,gardening,interviews,inventory,layout,maps,measuring,mentoring,negotiation,payroll,
photography,proofreading,public speaking,purchasing,quality checks,reporting,safety training,sales,scheduling,soldering,
spreadsheets,storytelling,surveys,teaching,team lead,technical drawing,translation,typing,web pages""".replace(
    "\n", ""
).split(",")

THINGS = """
apples books bottles boxes bricks brushes candles carpets chairs clocks coats cups desks doors drums envelopes fans
gloves hats jars kettles keys ladders lamps letters maps mirrors mugs notebooks nuts pans papers parcels pens pillows
pipes plates pumps radios ropes sacks screws seeds shelves shirts shoes spoons stoves tables tents tiles tools towels
trays umbrellas vases wheels windows
""".split()

COLOURS = {
    "red": (200, 40, 40),
    "blue": (40, 80, 190),
    "green": (40, 140, 70),
    "orange": (235, 130, 30),
    "purple": (120, 60, 160),
    "grey": (120, 120, 120),
    "brown": (125, 80, 40),
    "pink": (235, 120, 170),
}
"""Names of the colours that charts and signs use -> red, green, blue."""


def priced(kind: str) -> list[tuple[str, int]]:
    """The goods of a kind of shop, each with its usual price."""
    pairs = (item.strip().split(",") for item in GOODS[kind].split(";"))
    return [(name, int(price)) for name, price in pairs]

"""A study's cells as tasks of a real Ray on this machine. `make slow` installs Ray."""

from __future__ import annotations

import pytest
import yaml

from lorgnette.study.cells import jobs_of
from lorgnette.study.result_rows import RowStore
from lorgnette.study.run_cells import run_study
from tests.study.test_run_cells import QUIET, rows_of


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tasks_of_ray_give_the_rows_of_one_process(measured, tiny_study, tmp_path) -> None:
    import ray

    where = tmp_path / "mine.yaml"
    where.write_text(yaml.safe_dump(tiny_study.plain()), encoding="utf-8")
    store = RowStore(tmp_path / "cluster", shipped=False)
    try:
        run_study(jobs_of(tiny_study, str(where), "micro"), store, QUIET, ray="local")
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    assert len(store.read()) == 2
    assert rows_of(store) == rows_of(measured)

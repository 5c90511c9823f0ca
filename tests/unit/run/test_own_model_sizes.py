"""Memory, budgets and mirrors of suites with models of the user's own."""

from __future__ import annotations

import pytest

from own_models import BERT, GPT, model_folder, put
from peftmark.core.errors import UserError
from peftmark.memory import plan_estimates
from peftmark.memory.forecast import Forecast
from peftmark.memory.plan_estimates import config_of, outlooks
from peftmark.run import admission, fetch
from peftmark.run.admission import foresee, rough_bytes
from peftmark.run.own_models import shapes_of
from peftmark.run.runner import Selection, make_plan
from small_suite import QUICK, changed, write


@pytest.fixture
def here(no_devices, tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "mine")
    write(tmp_path / "suites", changed(((*QUICK, "model"), "./mine")))
    return tmp_path


def plan(folder):
    return make_plan(Selection("demo", suites=folder / "suites", results=folder / "results"))


@pytest.mark.parametrize("where", ["mine", "./mine", "mine/config.json"])
def test_a_folder_or_its_configuration_tells_the_architecture(here, where):
    put(here / "mine", "config.json", BERT | {"id2label": {"0": "a"}, "num_labels": 1})
    assert config_of(where) == BERT


def test_what_tells_no_architecture_is_refused(here):
    (here / "mine" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="names no model_type"):
        config_of("mine")
    with pytest.raises(UserError, match="a model's folder or config"):
        config_of("gone")


def test_jobs_are_predicted_and_admitted_by_the_folders_configuration(here, monkeypatch):
    asked = []

    def predicted(requests, *_, **__):
        asked.extend(one.config for one in requests)
        return [Forecast(live={"weights": 1 << 50}, allocated=1 << 50) for _ in requests]

    monkeypatch.setattr(plan_estimates, "forecasts", predicted)
    monkeypatch.setattr(admission, "forecasts", predicted)
    made = plan(here)
    found = outlooks(made.jobs, None, shapes=shapes_of(made.own_files))
    assert [one.forecast.total for one in found] == [1 << 50] * 4
    assert asked == [BERT] * 4
    assert all(one.forecast.reason for one in outlooks(made.jobs, None))
    told = foresee(made.jobs, {}, 1, 10**6, None, shapes_of(made.own_files))
    assert len(told.refused) == 4
    assert foresee(made.jobs, {}, 1, 10**6, None) == admission.Foreseen()


def test_the_rough_bound_reads_whatever_names_sizes_have(here):
    job = plan(here).jobs[0]
    same = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}
    assert (
        rough_bytes(job, GPT) == rough_bytes(job, same) == rough_bytes(job, {"text_config": same})
    )
    assert rough_bytes(job, {"model_type": "odd"}) == float("inf")


def test_a_mirror_holds_what_is_not_the_users_own(here, monkeypatch):
    seen = []
    monkeypatch.setattr(fetch, "_check_folder", lambda to: None)
    monkeypatch.setattr(fetch, "_model", lambda model, places: seen.append(model.key))
    monkeypatch.setattr(fetch, "_task", lambda task, places: seen.append(task.key))
    with pytest.raises(AttributeError):  # what was loaded is nothing here
        fetch.fetch_suite("demo", None, here / "m", None, here / "suites")
    assert set(seen) == {"trec"}

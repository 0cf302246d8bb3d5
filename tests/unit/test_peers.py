"""The pure parts of benchmarks/peers: what was spent, what is paired, what is corrected, what is done."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import outside

from autoslim_cli.files.channel_config import read_config

NAMES = ("accounting", "commands", "final", "found", "judged", "networks", "plan", "report")


@pytest.fixture(scope="module")
def peers():
    with outside("benchmarks/peers", names=NAMES) as modules:
        yield modules


def test_a_training_step_is_three_forward_passes(peers):
    assert peers.accounting.training(10, images=100, epochs=2) == 3 * 10 * 100 * 2


def test_a_sandwich_counts_its_largest_its_smallest_and_the_mean_of_its_random_ones(peers):
    largest, smallest = 1000, 10
    mean = (largest - smallest) / math.log(largest / smallest)
    draws = 100_000  # the mean of what is drawn evenly in the logarithm
    drawn = sum(smallest * (largest / smallest) ** ((k + 0.5) / draws) for k in range(draws)) / draws
    assert mean == pytest.approx(drawn, rel=1e-6)
    spent = peers.accounting.sandwich(largest, smallest, samples=4, images=50, epochs=3)
    assert spent == round(3 * 50 * 3 * (largest + smallest + 2 * mean))
    assert peers.accounting.sandwich(largest, smallest, samples=2, images=1, epochs=1) == 3 * (largest + smallest)


@given(compute=st.integers(1, 10**15), flops=st.integers(1, 10**8), images=st.integers(1, 10**5))
def test_the_control_spends_what_it_is_given_and_less_than_an_epoch_more(peers, compute, flops, images):
    epochs = peers.accounting.epochs_for(compute, flops, images)
    assert peers.accounting.training(flops, images, epochs) >= compute
    assert epochs == 1 or peers.accounting.training(flops, images, epochs - 1) < compute


def test_holm_gives_the_worked_example(peers):
    # 0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.04 x 1, each at least the one before
    assert peers.judged.holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert peers.judged.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert peers.judged.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(peers, values):
    corrected = peers.judged.holm(values)
    for value, one in zip(values, corrected, strict=True):
        assert value <= one <= min(1.0, len(values) * value) + 1e-12
    assert sorted(corrected) == [corrected[k] for k in sorted(range(len(values)), key=lambda k: values[k])]


def row(arm: str, seed: int, top1: float, family: str = "ours", share: int = 25, base: str = "resnet20") -> dict:
    return {"base": base, "arm": arm, "family": family, "seed": seed, "share": share, "top1": top1}


def test_only_seeds_that_both_have_are_paired_in_one_order(peers):
    rows = [row("a", 2, 0.7), row("a", 0, 0.5), row("b", 0, 0.4), row("b", 1, 0.9), row("b", 2, 0.6)]
    rows.append(row("a", 1, 0.1, share=12))  # another budget
    one, other = (peers.judged.by_seed(rows, arm, 25) for arm in "ab")
    assert peers.judged.paired(one, other) == ([0.5, 0.7], [0.4, 0.6])


def test_p_is_that_of_a_paired_t_test(peers):
    one, other = [0.71, 0.73, 0.72, 0.74], [0.70, 0.71, 0.705, 0.715]
    differences = [a - b for a, b in zip(one, other, strict=True)]
    mean = sum(differences) / 4
    deviation = (sum((d - mean) ** 2 for d in differences) / 3) ** 0.5
    from scipy.stats import t

    assert peers.judged.p_of(one, other) == pytest.approx(2 * t.sf(mean / (deviation / 2), 3))
    assert peers.judged.p_of([0.7], [0.6]) is None


def test_the_best_arm_is_by_mean_and_one_lucky_seed_does_not_make_one(peers):
    rows = [row("steady", seed, 0.7) for seed in range(3)] + [row("worse", seed, 0.69) for seed in range(3)]
    rows += [row("lucky", 0, 0.9), row("else", 0, 0.99, family="fastnas")]
    assert peers.judged.best_arm(rows, "ours", 25) == "steady"
    assert peers.judged.best_arm(rows, "random", 25) is None


def test_all_comparisons_of_all_bases_are_corrected_together(peers):
    rows = []
    for base, share in (("resnet20", 25), ("resnet20", 12), ("mobilenet", 33)):
        for seed in range(3):
            noise = 0.001 * (seed - 1) ** 2 + 0.002 * seed
            rows.append(row("ours-scratch", seed, 0.75, "ours", share, base))
            rows.append(row("fastnas-scratch", seed, 0.74 - noise, "fastnas", share, base))
            rows.append(row("random-scratch", seed, 0.73 + noise, "random", share, base))
    tests = peers.report.tests_of(rows)
    assert len(tests) == 6
    assert {test["ours"] for test in tests} == {"ours-scratch"}
    assert all(len(test["differences"]) == 3 and test["p"] is not None for test in tests)


def test_what_has_a_row_is_not_trained_again(peers, tmp_path, monkeypatch):
    plan, final = peers.plan, peers.final
    monkeypatch.setattr(plan, "RESULTS", tmp_path)
    chosen = plan.Chosen("resnet20", [0, 1], ["ours-scratch", "one-width-scratch-all-compute"])
    jobs = final.jobs_of(chosen)
    assert len(jobs) == 2 * 2 * 2
    plan.add_row(chosen.file("final"), {"seed": 0, "share": 25, "arm": "ours-scratch"})
    left = final.left(jobs, plan.rows_of(chosen.file("final")))
    assert len(left) == 7
    assert not any((job.seed, job.share, job.arm.name) == (0, 25, "ours-scratch") for job in left)
    trained = []
    for job in left:
        plan.add_row(chosen.file("found"), {"seed": job.seed, "source": job.arm.source, "share": job.share})
    monkeypatch.setattr(
        final,
        "train",
        lambda _, job, _found: trained.append(job) or {"seed": job.seed, "share": job.share, "arm": job.arm.name},
    )
    final.final(chosen)
    final.final(chosen)
    assert trained == left


def test_shards_part_the_jobs(peers):
    chosen = peers.plan.Chosen("resnet20", [0, 1, 2, 3, 4])
    jobs = peers.final.jobs_of(chosen)
    assert len(jobs) == len(set(jobs))
    assert sorted(jobs[0::2] + jobs[1::2], key=jobs.index) == jobs
    controls = [job.seed for job in jobs if job.arm.all_compute]
    assert set(controls) == set(chosen.base.control_seeds)


def test_a_line_that_a_kill_cut_short_is_no_row_and_spoils_none(peers, tmp_path):
    path = tmp_path / "rows.jsonl"
    peers.plan.add_row(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2, "b')
    assert peers.plan.rows_of(path) == [{"a": 1}]
    peers.plan.add_row(path, {"a": 3})
    assert peers.plan.rows_of(path) == [{"a": 1}, {"a": 3}]


def test_arms_have_names_of_their_own_and_say_what_they_need(peers):
    arms = {arm.name: arm for arm in peers.plan.ARMS}
    assert len(arms) == len(peers.plan.ARMS)
    assert arms["one-width-scratch"].needs == ()
    assert arms["ours-scratch"].needs == ("supernet",)
    assert arms["torch-pruning-l2-pruned"].needs == ("base",)
    assert arms["torch-pruning-l2-scratch"].needs == ("base",)  # its channels come from the trained network
    assert arms["warm-supernet"].needs == ("warm",)
    assert peers.plan.DEAREST in peers.plan.ARMS


def test_an_arm_spends_its_trainings_and_its_search(peers, tmp_path, monkeypatch):
    plan, final = peers.plan, peers.final
    monkeypatch.setattr(plan, "RESULTS", tmp_path)
    chosen = plan.Chosen("resnet20", [0])
    plan.add_row(chosen.file("trained"), {"seed": 0, "what": "base", "multiply_adds": 1000, "flops": 40})
    plan.add_row(chosen.file("trained"), {"seed": 0, "what": "supernet", "multiply_adds": 5000})
    for source in ("ours", "one-width"):
        facts = {"seed": 0, "share": 25, "source": source, "flops": 10, "multiply_adds": 300}
        plan.add_row(chosen.file("found"), facts)
    arms = {arm.name: arm for arm in plan.ARMS}

    def parts(name: str) -> dict[str, int]:
        return final.parts_of(chosen, 0, 25, arms[name])

    work = 50_000 * 20
    assert parts("ours-scratch") == {"supernet": 5000, "search": 300, "final": 30 * work}
    assert parts("one-width-scratch") == {"search": 0, "final": 30 * work}


def test_channels_that_are_gone_are_written_from_their_row_and_others_left(peers, tmp_path, monkeypatch):
    asked = []

    def autoslim(*words: object) -> dict:
        asked.append(words)
        return {"model": {"name": "autoslim/cifar_resnet", "input": [3, 32, 32], "classes": 10}}

    monkeypatch.setattr(peers.final, "autoslim", autoslim)
    lost = {"arch": str(tmp_path / "fastnas/arch-10.json"), "source": "fastnas", "channels": {"stem": 8}}
    path = peers.final.arch_of(lost, tmp_path / "supernet")
    assert asked == [("units", "-r", tmp_path / "supernet")]
    config = read_config(path)
    assert (config.channels, config.source, config.model.name) == ({"stem": 8}, "fastnas", "autoslim/cifar_resnet")
    path.write_text("as it was found")
    assert peers.final.arch_of(lost, tmp_path / "supernet").read_text() == "as it was found"


def test_links_part_the_images_by_seed(peers, tmp_path, monkeypatch):
    plan = peers.plan
    for part, count in (("train", 30), ("test", 10)):
        for number in range(count):
            place = tmp_path / "images" / part / f"class-{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(b"")
    monkeypatch.setattr(plan, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(plan, "HERE", tmp_path / "runs")
    small = replace(plan.BASES["quick"], train_images=20, test_images=4, holdout=6)
    monkeypatch.setitem(plan.BASES, "quick", small)
    names = {}
    for seed in (0, 1):
        place = plan.views(plan.Chosen("quick"), seed)
        for view in ("whole", "known", "held"):
            names[seed, view] = {path.name for path in (place / view / "train").glob("*/*") if path.exists()}
            assert len(list((place / view / "test").glob("*/*"))) == 4
    assert len(names[0, "whole"]) == 20
    assert len(names[0, "held"]) == 6
    assert names[0, "known"] | names[0, "held"] == names[0, "whole"]
    assert names[0, "held"] != names[1, "held"]


def test_flops_of_a_pruned_network_are_the_literatures_count(peers):
    from torch import nn, zeros

    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    assert peers.networks.flops(network, zeros(1, 3, 32, 32)) == 16 * 16 * (3 * 8 * 9 + 8 * 9) + 80


def test_channels_of_tied_layers_must_agree(peers):
    from torch import nn

    network = nn.ModuleDict({"a": nn.Conv2d(3, 8, 1), "b": nn.Conv2d(3, 8, 1), "c": nn.Linear(4, 10)})
    units = [
        {"name": "a", "layers": ["a", "b"], "pinned": None},
        {"name": "c", "layers": ["c"], "pinned": "the network's output"},
    ]
    assert peers.networks.channels_of(network, units) == {"a": 8}
    network["b"] = nn.Conv2d(3, 6, 1)
    with pytest.raises(ValueError, match=r"the layers of a have \[6, 8\]"):
        peers.networks.channels_of(network, units)


def test_a_peer_that_is_not_installed_is_said_and_no_error(peers, monkeypatch):
    monkeypatch.setenv("PEERS_FASTNAS_PYTHON", "/nowhere/python")
    assert not peers.commands.installed("fastnas")


def test_the_last_line_of_a_peer_is_its_answer(peers):
    answer = json.dumps({"found": []})
    assert peers.commands._last_object(f"Pruning...\n{answer}\n") == answer
    assert peers.commands._last_object('{\n  "a": 1\n}\n') == '{\n  "a": 1\n}\n'

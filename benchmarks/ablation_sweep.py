"""In which layer and dictionary does ablating off-topic detectors stop the organism's restarts, and why there?

    python benchmarks/ablation_sweep.py              # both shipped models that restart: an hour on one core
    python benchmarks/ablation_sweep.py --quick      # does it run? about half a minute
    python benchmarks/ablation_sweep.py --models organism my-organism/organism --saes 2/1024/8/0.004

A model is one that ships, or a folder that `esr organism train` wrote. For each: the demo's study (its directions,
thresholds, prompts and seeds), steered with the shipped SAE's latents at layer 1. Then

1. *Where the mismatch is kept*, teacher-forced. A text that answers another question is read up to its third sentence
   end. The residual at some positions is replaced by that of the same text after the question it answers. How far the
   probability of a restart falls says whether the mismatch is there. `rank 1`: at the sentence end only its
   projection on the difference of means is replaced, by the matching texts' mean.
2. *Ablation*: the study's trials again with the n best detectors of an SAE clamped to 0, against sets matched on how
   often and how strongly they fire. Differences are paired by trial; intervals (95 %) cluster by direction.

Detectors come from unsteered responses to questions on topics the trials never ask about: matched pairs against a
derangement, maximum over the response's tokens, ranked by AUC. Two rules say what a detector may do on matched pairs:
`share`, the mean of those maxima is at most half of that on mismatched pairs (the rule of `esr.directions.detectors`);
`fires`, it is silent on 80 % of them, which shuts out a detector that is never quite 0.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sae_lens import SAE
from torch import Tensor

from esr.analysis.paired import compare
from esr.directions.detectors import rank, separability
from esr.directions.matching import random_sets
from esr.directions.promotion import restart_promotion
from esr.judging.records import Exhibit, Scored
from esr.organism.corpus import distracted_example, plain_example
from esr.organism.demo import EVERY, TOPICS
from esr.organism.dictionary import DISTRACTED_SHARE, measure_fidelity, save_dictionary, train_dictionary
from esr.organism.language import PAD, RESTART_OPENERS, vocabulary
from esr.organism.residual import STEERING_LAYER, padded
from esr.organism.schedule import LOW, UNTRAINED_RECOVERY
from esr.steering.engine import Request
from esr.steering.hf import HFEngine
from esr.steering.interventions import ALL, RESPONSE_ONLY, Clamp, Direction, Schedule
from esr.studies.asking import Asker
from esr.studies.conditions import Condition
from esr.studies.grid import draw_cells, generator
from esr.studies.judges import make_judge
from esr.studies.measure import Task
from esr.studies.new import write_study
from esr.studies.progress import Silent
from esr.studies.runner import run_study
from esr.studies.study import Study
from esr.subjects.chat import chat_ids
from esr.subjects.latents import LatentReader
from esr.subjects.loading import Subject, load_subject
from esr.subjects.prompts import read_prompts
from esr.subjects.spec import ORGANISMS, packaged_folder

MODELS = ("organism", UNTRAINED_RECOVERY)
Shape = tuple[int, int, int, float]
"""An SAE: layer, latents, k, peak learning rate."""
SAES: tuple[Shape | None, ...] = (
    None,  # the shipped one: layer 1, 1024 latents, k 8, 4e-3
    (1, 1024, 8, 2e-3), (0, 1024, 8, 4e-3), (2, 1024, 8, 4e-3), (3, 1024, 8, 4e-3),
    (1, 512, 8, 4e-3), (1, 2048, 8, 4e-3), (1, 1024, 16, 4e-3), (1, 1024, 32, 4e-3),
)  # fmt: skip
SIZES = (3, 6, 12, 26)
EFFICACY_BOOSTS = {UNTRAINED_RECOVERY: [25.0, 35.0]}
"""Its directions bite at 19 to 33: at the preset's 15 and 25 only a third of them pass the gate."""
MATCHED_SHARE, FIRING_SHARE = 0.5, 0.2
SEPARATES = 0.75
"""No control: a latent with such an AUC, whether or not a rule lets it in."""
SHIFT = 7
"""The mismatched response of a pair is that of the pair so many further on."""
SENTENCES_READ = 3


@dataclass(frozen=True)
class Effort:
    """How much work goes in."""

    tokens: int = 200_000
    """Residuals an SAE is trained on, and a sixth as many it is measured on."""
    steps: int = 700
    repeats: int = 4
    """Unsteered responses per discovery prompt."""
    directions: int = 48
    sizes: tuple[int, ...] = SIZES
    """How many detectors are ablated; the first two sizes also with random sets."""
    random_sets: int = 3
    sae_seed: int = 0


# ---- the demo's study, and its trials again


@dataclass
class Bench:
    """One model, ready to do the trials of its demo study again."""

    name: str
    folder: Path
    """Its study; the SAEs lie beside it."""
    study: Study
    subject: Subject
    judge: Any
    tasks: list[Task]
    """The incidence trials, as the study drew them."""
    discovery: list[str]
    """Prompts on topics that the trials never ask about."""
    openers: list[int]
    """Tokens that begin a restart, and nothing else."""


def open_bench(name: str, folder: Path, effort: Effort) -> Bench:
    """Run a model's study in `folder`, or find it there."""
    source = packaged_folder(name) if name in ORGANISMS else Path(name)
    subject = {} if name in ORGANISMS else {
        "model": str(source), "sae": {"path": str(source / "sae")}, "labels": str(source / "labels.json"),
        "lexicon": str(source / "lexicon.json"),
    }  # fmt: skip
    prompts = read_prompts(source / "prompts.txt")
    folder = folder / name.strip("/").replace("/", "-")
    if not (folder / "study.toml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        asked = [prompt for i, prompt in enumerate(prompts) if i % TOPICS % EVERY == 0]
        (folder / "prompts.txt").write_text("\n".join(asked) + "\n", encoding="utf-8")
        directions = {"count": effort.directions, "relevance": "released"}
        if source.name in EFFICACY_BOOSTS:
            directions["efficacy_boosts"] = EFFICACY_BOOSTS[source.name]
        write_study(folder, {
            "name": f"ablation sweep: {name}", "format": 1, "seed": 0, "experiments": ["incidence"],
            "subject": {"preset": source.name, **subject}, "prompts": {"file": "prompts.txt", "per_direction": 5},
            "directions": directions, "engine": {"batch_size": 240},
        })  # fmt: skip
    study = Study.open(folder)
    config = study.config
    run_study(folder, config, ["incidence"], Silent())
    loaded = load_subject(config.subject)
    asker = Asker(config, loaded, tuple(read_prompts(folder / "prompts.txt")))
    usable = study.calibration.dropna(subset="threshold")
    ids, thresholds = usable["direction"].tolist(), usable["threshold"].tolist()
    directions_ = [Direction(i, loaded.require_reader().direction(int(i.split(":")[1]))) for i in ids]
    cells = draw_cells(config.seed, "trials", ids, len(asker.prompts), config.prompts.per_direction)
    tasks = [
        asker.task("trial", Condition("incidence"), cell, directions_[cell.direction], thresholds[cell.direction])
        for cell in cells
    ]
    others = [prompt for prompt in prompts if prompt not in asker.prompts]
    openers = [vocabulary().ids[word] for word in RESTART_OPENERS]
    return Bench(name, folder, study, loaded, make_judge(config.judge, config.subject, folder), tasks, others, openers)


def run_trials(bench: Bench, condition: str, reader: LatentReader | None = None, clamps: Sequence[Clamp] = ()) -> Any:
    """The study's incidence trials with clamps of `reader`'s latents on top, judged: a frame for `compare`."""
    subject = bench.subject if reader is None else replace(bench.subject, reader=reader)
    requests = [
        replace(t.request, id=str(i), interventions=(*clamps, *t.request.interventions))
        for i, t in enumerate(bench.tasks)
    ]
    texts = {r.id: r.text for r in HFEngine(subject, 240).generate(requests)}
    exhibits = [Exhibit(str(i), task.prompt, texts[str(i)]) for i, task in enumerate(bench.tasks)]
    rows = []
    for task, (key, verdict) in zip(bench.tasks, bench.judge.judge(exhibits), strict=True):
        first = last = math.nan
        multi = False
        if isinstance(verdict, Scored):
            first, last = verdict.attempts[0].score, verdict.attempts[-1].score
            multi = verdict.explicit_restarts > 0
        rows.append({
            "trial": f"{condition}/{key}", "condition": condition, "direction": task.direction,
            "prompt_index": task.prompt_index, "seed": task.seed,
            "state": "scored" if isinstance(verdict, Scored) else "unscored",
            "multi_attempt": multi, "improved": multi and last > first, "first_score": first,
            "improvement": last - first if multi else math.nan,
        })  # fmt: skip
    return pd.DataFrame(rows)


# ---- matched and mismatched pairs


@dataclass(frozen=True)
class Pairs:
    """Unsteered responses after their own question and after another topic's; the same responses on both sides.

    Rows 0..n-1 of `texts` are matched, rows n..2n-1 mismatched; row n + i holds row `answers[i]`'s response.
    `states` [layers][tokens, d_model]: the residual over the responses' tokens; `row` [tokens]: whose.
    """

    texts: list[tuple[tuple[int, ...], tuple[int, ...]]]
    answers: list[int]
    states: list[Tensor]
    row: Tensor

    @property
    def mismatched(self) -> Tensor:
        """[pairs], bool."""
        return torch.arange(len(self.texts)) >= len(self.answers)

    def highest(self, activations: Tensor) -> Tensor:
        """Maximum over each pair's tokens of `activations` [tokens, latents]. Returns [pairs, latents]."""
        index = self.row.unsqueeze(1).expand_as(activations)
        return torch.zeros(len(self.texts), activations.shape[1]).scatter_reduce(0, index, activations, "amax")


def read_pairs(bench: Bench, prompts: Sequence[str], repeats: int, purpose: str) -> Pairs:
    """Answer the prompts unsteered, leave out answers with a restart, and read both kinds of pairs at every layer."""
    seeds = generator(bench.study.config.seed, purpose).integers(0, 2**31, repeats * len(prompts))
    asked = [prompt for _ in range(repeats) for prompt in prompts]
    ids = [chat_ids(bench.subject, bench.study.config.subject, prompt) for prompt in asked]
    sampling = bench.tasks[0].request.sampling
    requests = [Request(str(i), ids[i], sampling=sampling, seed=int(seed)) for i, seed in enumerate(seeds)]
    said = {int(r.id): r.token_ids for r in HFEngine(bench.subject, 240).generate(requests)}
    kept = [i for i in range(len(asked)) if not set(said[i]) & set(bench.openers)]
    topic = [bench.judge.lexicon.topic_of(asked[i]) for i in kept]
    answers = []
    for i in range(len(kept)):
        others = ((i + SHIFT + k) % len(kept) for k in range(len(kept)))
        answers.append(next(j for j in others if topic[j] != topic[i]))
    texts = [(ids[i], said[i]) for i in kept] + [(ids[i], said[kept[j]]) for i, j in zip(kept, answers, strict=True)]
    states: list[list[Tensor]] = [[] for _ in bench.subject.layers]
    for start in range(0, len(texts), 64):
        part = texts[start : start + 64]
        hidden, _ = forward(bench, padded([[*p, *r] for p, r in part], vocabulary().ids[PAD]))
        for layer, h in zip(states, hidden, strict=True):
            layer += [h[k, len(p) : len(p) + len(r)].clone() for k, (p, r) in enumerate(part)]
    row = torch.cat([torch.full((len(r),), k) for k, (_, r) in enumerate(texts)])
    return Pairs(texts, answers, [torch.cat(layer) for layer in states], row)


@torch.no_grad()
def forward(
    bench: Bench, ids: Tensor, change: Callable[[int, Tensor], Tensor] | None = None
) -> tuple[list[Tensor], Tensor]:
    """Residual after every layer (before the final norm), each [rows, tokens, d_model], and the probability that a
    restart comes next, [rows, tokens]. `change(layer, residual)` may give back another residual."""
    seen: list[Tensor] = []

    def hook(_module: Any, _inputs: Any, out: Tensor) -> Tensor:
        h = out if change is None else change(len(seen), out)
        seen.append(h)
        return h

    handles = [layer.register_forward_hook(hook) for layer in bench.subject.layers]
    try:
        logits = bench.subject.model(input_ids=ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    return seen, logits.softmax(-1)[..., bench.openers].sum(-1)


# ---- 1. where the mismatch is kept


def print_places(bench: Bench, pairs: Pairs) -> None:
    """Probability of a restart at the third sentence end, with the residual of some positions from the matched text."""
    stop, n = vocabulary().ids["."], len(pairs.answers)
    cases = []
    for i, j in enumerate(pairs.answers):
        response = pairs.texts[j][1]
        ends = [at for at, token in enumerate(response) if token == stop][:SENTENCES_READ]
        if len(ends) == SENTENCES_READ:
            cases.append((pairs.texts[n + i][0], pairs.texts[j][0], response[: ends[-1] + 1]))
    pad = vocabulary().ids[PAD]
    wrong, right = (padded([[*case[k], *case[2]] for case in cases], pad) for k in (0, 1))
    rows = torch.arange(len(cases))
    last, last_right = (torch.tensor([len(case[k]) + len(case[2]) - 1 for case in cases]) for k in (0, 1))
    answer = torch.arange(wrong.shape[1]) >= torch.tensor([len(case[0]) for case in cases])[:, None]
    answer &= torch.arange(wrong.shape[1]) <= last[:, None]
    content = torch.tensor(vocabulary().owner)[wrong] >= 0
    at_last = torch.arange(wrong.shape[1]) == last[:, None]
    source = (torch.arange(wrong.shape[1]) + (last_right - last)[:, None]).clamp(0, right.shape[1] - 1)
    states, before = forward(bench, wrong)
    wanted, after = forward(bench, right)
    places = {
        "content words": answer & content,
        "other words": answer & ~content & (wrong != stop),
        "earlier ends": answer & (wrong == stop) & ~at_last,
        "this end": at_last,
        "all": answer,
    }

    def patched(layer: int, place: Tensor, donor: Tensor) -> float:
        def change(at: int, h: Tensor) -> Tensor:
            return torch.where(place.unsqueeze(-1), donor, h) if at == layer else h

        return float(forward(bench, wrong, change)[1][rows, last].mean())

    print(f"\nP(restart) at the third sentence end, {len(cases)} texts: {before[rows, last].mean():.3f} after another")
    print(f"question, {after[rows, last_right].mean():.3f} after its own. With the latter's residual at")
    print(f"  {'layer':6}" + "".join(f"{name:>15}" for name in places) + f"{'rank 1':>15}")
    for layer, h in enumerate(states):
        donor = wanted[layer].gather(1, source.unsqueeze(-1).expand(*source.shape, h.shape[-1]))
        falls = [patched(layer, place, donor) for place in places.values()]
        own, goal = h[rows, last], wanted[layer][rows, last_right].mean(0)
        axis = torch.nn.functional.normalize(own.mean(0) - goal, dim=0)
        flat = h.clone()
        flat[rows, last] = own - ((own - goal) @ axis).unsqueeze(1) * axis
        falls.append(patched(layer, at_last, flat))
        print(f"  {layer:<6}" + "".join(f"{fall:15.3f}" for fall in falls), flush=True)


# ---- 2. dictionaries, detectors, ablation


def corpus_states(bench: Bench, tokens: int) -> list[Tensor]:
    """Residuals of corpus text at every layer, [layers][tokens, d_model]: the mixture of `esr.organism.dictionary`."""
    rng, pad = random.Random("residuals/0"), vocabulary().ids[PAD]
    pieces: list[list[Tensor]] = [[] for _ in bench.subject.layers]
    while sum(map(len, pieces[0])) < tokens:
        drawn = [
            distracted_example(rng, LOW) if rng.random() < DISTRACTED_SHARE else plain_example(rng) for _ in range(64)
        ]
        ids = padded([vocabulary().encode(example.words) for example in drawn], pad)
        keep = ids != pad
        keep[:, 0] = False  # <bos>: its norm is many times the others'
        for piece, h in zip(pieces, forward(bench, ids)[0], strict=True):
            piece.append(h[keep])
    return [torch.cat(piece)[:tokens] for piece in pieces]


def dictionary(bench: Bench, states: list[Tensor], shape: Shape, effort: Effort) -> LatentReader:
    """Train an SAE, or find it beside the study, and say how good it is."""
    layer, latents, k, lr = shape
    where = bench.folder / "saes" / f"layer{layer}-{latents}-k{k}-lr{lr:g}-seed{effort.sae_seed}"
    train, held_out = states[layer][: effort.tokens], states[layer][effort.tokens :]
    if not (where / "cfg.json").exists():
        sae = train_dictionary(
            train, effort.sae_seed, bench.name, effort.steps, latents, k, lr, f"model.layers.{layer}"
        )
        save_dictionary(sae, where, held_out)
    reader = LatentReader(SAE.load_from_disk(where).eval().requires_grad_(False))
    good = measure_fidelity(reader.sae, held_out)
    print(f"\nSAE of layer {layer}: {latents} latents, k {k}, learning rate {lr:g}, seed {effort.sae_seed};"
          f" unexplained {good.fvu:.4f}, {good.alive} alive")  # fmt: skip
    return reader


def latent_table(bench: Bench, reader: LatentReader, layer: int, pairs: Pairs, held_out: Pairs) -> pd.DataFrame:
    """One row per latent: `separability` on the discovery pairs, its AUC on the held-out ones, the density and mean
    activation where active over all tokens, and the restart promotion of its decoder row."""
    active, again = (
        torch.cat([reader.encode(part) for part in one.states[layer].split(8192)]) for one in (pairs, held_out)
    )
    table, repeated = (
        separability(highest[~one.mismatched].numpy(), highest[one.mismatched].numpy())
        for one, highest in ((pairs, pairs.highest(active)), (held_out, held_out.highest(again)))
    )
    fired = (active > 0).sum(0)
    return table.assign(
        auc_held_out=repeated["auc"],
        density=(fired / len(active)).double().numpy(),
        size=(active.sum(0) / fired.clamp(min=1)).double().numpy(),
        promotion=restart_promotion(bench.subject, reader.sae.W_dec.numpy(), bench.openers),
    )


def detectors(table: pd.DataFrame, rule: str) -> list[int]:
    """Latents that lean to mismatched pairs and are low on matched ones by the rule, best AUC first."""
    if rule == "share":
        found = rank(table, top=len(table), matched_share=MATCHED_SHARE)
    else:
        found = rank(table[table["rate_matched"] <= FIRING_SHARE], top=len(table))
    return [int(latent) for latent in found["latent"]]


class Ablations:
    """The ablations of one dictionary, printed as they are done."""

    def __init__(self, bench: Bench, base: pd.DataFrame, reader: LatentReader, layer: int, table: pd.DataFrame) -> None:
        self.bench, self.base, self.reader, self.layer, self.table = bench, base, reader, layer, table
        print(f"  {'':26}{'multi-attempt %':>27}{'ESR %':>27}{'first score':>27}{'n':>6}{'unscored':>9}")

    def clamped(self, name: str, latents: Sequence[int], schedule: Schedule = ALL) -> None:
        """One condition: latents at 0."""
        clamps = [Clamp(latent, 0.0, self.layer, schedule) for latent in latents]
        trials = run_trials(self.bench, name, self.reader, clamps)
        print_row(self.base, trials, name)

    def detectors(self, rule: str, effort: Effort, tag: str) -> None:
        """The best n by a rule, and random sets for each n."""
        found = detectors(self.table, rule)
        steered = {int(task.direction.split(":")[1]) for task in self.bench.tasks} if tag == "shipped" else set()
        separating = self.table.loc[self.table["auc"] >= SEPARATES, "latent"]
        excluded = {*found[: max(effort.sizes)], *map(int, separating), *steered}
        rng = generator(self.bench.study.config.seed, "random sets", tag, rule)
        density, size = (self.table[column].to_numpy(float) for column in ("density", "size"))
        for n in effort.sizes:
            if n > len(found):
                continue
            self.clamped(f"{rule}: top {n}", found[:n])
            if effort.random_sets and n in effort.sizes[:2]:
                for drawn in random_sets(
                    found[:n], density, size, rng, sets=effort.random_sets, exclude=excluded - set(found[:n])
                ):
                    self.clamped(f"  random {n}, distance {drawn.mean_distance:.2f}", drawn.latents)


def print_row(base: pd.DataFrame, trials: pd.DataFrame, name: str) -> None:
    """A condition's values and paired differences from the steered trials without ablation."""
    frame = trials.assign(condition="ablated", trial=trials["trial"] + "/ablated")
    table = compare(pd.concat([base, frame]), "ablated", "incidence").set_index("statistic")
    cells = []
    for statistic, factor in (("multi_attempt_rate", 100), ("esr_rate", 100), ("mean_first_score", 1)):
        row = table.loc[statistic]
        value, difference, low, high = (
            factor * float(row[c]) for c in ("value_treatment", "difference", "difference_low", "difference_high")
        )
        cells.append(f"{value:6.1f} {difference:+6.1f} [{low:+.1f}, {high:+.1f}]".rjust(27))
    unscored = int(trials["state"].eq("unscored").sum())
    print(f"  {name:26}{''.join(cells)}{int(row['n_pairs']):6}{unscored:9}", flush=True)


def sweep(bench: Bench, saes: Sequence[Shape | None], effort: Effort) -> None:
    """Everything about one model."""
    base = run_trials(bench, "incidence")
    rates = base[base["state"].eq("scored")]
    print(f"\n# {bench.name}: {len(base)} steered trials of {base['direction'].nunique()} directions,"
          f" {len(base) - len(rates)} unscored; multi-attempt {rates['multi_attempt'].mean():.1%},"
          f" ESR {rates['improved'].mean():.1%}, first score {rates['first_score'].mean():.1f}")  # fmt: skip
    asked = sorted({task.prompt for task in bench.tasks})
    pairs, held_out = (read_pairs(bench, p, effort.repeats, name) for p, name in
                       ((bench.discovery, "discovery"), (asked, "held out")))  # fmt: skip
    print_places(bench, pairs)
    states = corpus_states(bench, effort.tokens + effort.tokens // 6)

    def dictionary_of(shape: Shape | None) -> tuple[LatentReader, int, pd.DataFrame]:
        if shape is None:
            print("\nSAE of layer 1 as shipped")
            reader, layer = bench.subject.require_reader(), STEERING_LAYER
        else:
            reader, layer = dictionary(bench, states, shape, effort), shape[0]
        table = latent_table(bench, reader, layer, pairs, held_out)
        print(f"detectors by `share`: {len(detectors(table, 'share'))}, by `fires`: {len(detectors(table, 'fires'))}."
              f" The first by AUC, whatever the rule ({len(pairs.answers)} pairs of each kind):")  # fmt: skip
        print(table.sort_values("auc", ascending=False, kind="stable").head(6).round(3).to_string(index=False))
        return reader, layer, table

    for number, shape in enumerate(saes):
        reader, layer, table = dictionary_of(shape)
        ablations = Ablations(bench, base, reader, layer, table)
        ablations.detectors("share", effort, "shipped" if shape is None else str(shape))
        if number == 0:
            ablations.detectors("fires", replace(effort, random_sets=0), "fires")
            found = detectors(table, "share")
            ablations.clamped("share: top 3, response only", found[:3], RESPONSE_ONLY)
            for latent in found[:3]:
                ablations.clamped(f"only latent {latent}", [latent])


def parse_shape(text: str) -> Shape | None:
    """`layer/latents/k/learning rate`, or `shipped`."""
    if text == "shipped":
        return None
    layer, latents, k, lr = text.split("/")
    return int(layer), int(latents), int(k), float(lr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="shipped models or folders")
    parser.add_argument("--saes", nargs="+", type=parse_shape, default=list(SAES), metavar="SAE",
                        help="`shipped` or LAYER/LATENTS/K/LR; the first one gets every comparison")  # fmt: skip
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="how many detectors are ablated")
    parser.add_argument("--random-sets", type=int, default=3, help="for each of the first two sizes")
    parser.add_argument("--sae-seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep studies and SAEs here, and use what is there")
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a model of a million parameters is slower on two
    start = time.perf_counter()
    models, saes = arguments.models, arguments.saes
    effort = Effort(sizes=tuple(arguments.sizes), random_sets=arguments.random_sets, sae_seed=arguments.sae_seed)
    if arguments.quick:
        effort = Effort(tokens=12_000, steps=40, repeats=1, directions=4, sizes=(3,), random_sets=1)
        models, saes = models[:1], saes[:2]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for name in models:
            sweep(open_bench(name, folder, effort), saes, effort)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

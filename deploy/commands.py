"""The commands of `hero`: what each runs, its examples, and the sections of the settings that it reads."""

from __future__ import annotations

from dataclasses import dataclass

from deploy import calls


@dataclass(frozen=True)
class Command:
    run: calls.Call
    summary: str
    examples: str
    sections: tuple[str, ...]


RUN_SECTIONS = (
    "run",
    "broker",
    "model",
    "data",
    "sampling",
    "actor",
    "scorer",
    "verifier",
    "reward_model",
    "reward",
    "learner",
    "weights",
    "eval",
    "metrics",
    "tracing",
)

COMMANDS: dict[str, Command] = {
    "up": Command(
        calls.up,
        "Run everything on this machine: broker, learner, actors, scorers; evaluate before and after.",
        """  hero up deploy/configs/quickstart.toml
  hero up deploy/configs/quickstart.toml --rewards verifier --run.folder runs/verifier-only
  hero up my.toml --learner.lr 2e-5 --scorer.count 4
  hero up my.toml --scorer.count 1 --autoscale 8      1 to 8 scorers, as the lag of the rollouts asks for
  hero up my.toml --dry-run            check the settings, start nothing
  HERO_LEARNER__LR=2e-5 hero up my.toml

The same command resumes a run that was stopped. Ctrl-C drains; twice leaves at once.""",
        RUN_SECTIONS,
    ),
    "actor": Command(
        calls.worker("actor"),
        "One rollout actor: takes tickets, samples with vLLM. Join a run from any host, leave at any time.",
        """  hero actor my.toml --broker.url redis://head:6379/0 --run.id quickstart-1f2e3d
  hero actor --broker.url redis://head:6379/0     on a host that has nothing: model, settings and weights
                                                  come out of the broker
  hero actor --broker.url redis://head:6379/0 --run.id quickstart-1f2e3d --actor.threads 8""",
        ("run", "broker", "model", "sampling", "actor", "weights", "metrics", "tracing"),
    ),
    "scorer": Command(
        calls.worker("scorer"),
        "One scorer: verifier, reward model, HERO. Start as many as the lag of the rollouts asks for.",
        "  hero scorer my.toml --broker.url redis://head:6379/0 --run.id quickstart-1f2e3d",
        ("run", "broker", "scorer", "verifier", "reward_model", "reward", "metrics", "tracing"),
    ),
    "learner": Command(
        calls.worker("learner"),
        "The learner: issues tickets, trains with DeepSpeed, publishes weights. Resumes from its run folder.",
        "  hero learner my.toml --broker.url redis://head:6379/0",
        tuple(section for section in RUN_SECTIONS if section not in ("scorer", "reward_model")),
    ),
    "sft": Command(
        calls.sft,
        "Cold start: supervised fine-tuning on worked solutions, or on the model's own right samples.",
        """  hero sft deploy/configs/quickstart.toml        a new small policy, since sft.base is empty
  hero sft my.toml --sft.base Qwen/Qwen3-0.6B --sft.out runs/policy --data.solution solution
  hero sft my.toml --sft.base Qwen/Qwen3-4B-Base --sft.source samples --sft.problems 4000 --sft.completions 4""",
        ("run", "model", "data", "sampling", "actor", "verifier", "eval", "sft"),
    ),
    "rm": Command(
        calls.rm,
        "Reward model: train a classifier on labelled samples of the policy, or on a file; say what it is worth.",
        """  hero rm deploy/configs/quickstart.toml --rm.prompts 2000
  hero rm my.toml --rm.data labelled.jsonl --rm.further '["other.jsonl"]' --rm.loss bradley_terry

A row of such a file: {"question": "12 + 30 = ?", "completion": "It is \\\\boxed{42}", "correct": true}""",
        ("run", "model", "data", "sampling", "actor", "verifier", "eval", "rm"),
    ),
    "eval": Command(
        calls.at("deploy.evaluation.command:command"),
        "Held-out accuracy of one or several models on one or several sets, with intervals and paired tests.",
        """  hero eval runs/quickstart/policy runs/quickstart/hero           the run's settings and held-out problems
  hero eval Qwen/Qwen3-0.6B --data math500.jsonl amc=hub:math-ai/amc23 --eval.samples 8 --eval.k '[4, 8]'
  hero eval before=runs/policy after=runs/my --config my.toml --eval.temperature 0.6 --eval.top_p 0.95
  hero eval runs/my --data gsm8k_test.jsonl.gz --eval.problems 200 --out evals/gsm8k
  hero eval --from evals/gsm8k --eval.k '[2]'                     tables and picture again, nothing is sampled

A model is a folder, a hub name, or a run, of which the export is taken; NAME=MODEL and NAME=SET give names. Each
problem is answered greedily once and sampled --eval.samples times: pass@1 is the mean of the samples, pass@k the chance
that one of k is right, maj@n whether most of the n agree on the right answer. What is finished is kept in --out: the
same command goes on after a stop, with further models or sets it does what is missing. Say with every figure how it
was asked: --data.system_prompt alone decides much of what an instruct model reaches.""",
        ("eval", "model", "data", "sampling", "actor", "verifier"),
    ),
    "score": Command(
        calls.at("deploy.score:score"),
        'Score a file of {"question", "gold", "completions": [...]} rows: statuses, rewards, weight of each.',
        """  hero score groups.jsonl --rewards verifier
  hero score groups.jsonl --rewards hero --reward_model.model runs/reward-model --out scored.jsonl
  hero score groups.jsonl --config my.toml --explain 1
  hero score groups.jsonl --explain 3 --learner.advantage corpo
  hero score --from-run runs/quickstart/hero --rewards verifier --out again.jsonl""",
        ("verifier", "reward_model", "reward", "learner"),
    ),
    "compare": Command(
        calls.at("deploy.rescore:compare"),
        "How the rewards and advantages of a recorded run would change under other settings: a table and a picture.",
        """  hero compare runs/quickstart/hero --reward.alpha 0.05 --reward.beta 0.05
  hero compare runs/quickstart/hero --rewards verifier
  hero compare runs/quickstart/hero --learner.advantage corpo --plot corpo.png""",
        ("reward", "learner"),
    ),
    "shadow": Command(
        calls.at("deploy.shadow:run"),
        "Score the groups of a living run once more under other settings, beside it: how would rewards change?",
        """  hero shadow --run runs/quickstart/hero --reward.alpha 0.05          the run's settings but for this
  hero shadow stricter.toml --run runs/quickstart/hero --name stricter
  hero shadow --run runs/quickstart/hero --reward_model.model runs/rm-2 --name rm-2 --groups 500
  hero shadow my-second.toml --first my.toml --run quickstart-1f2e3d --url redis://head:6379/0

A line every few seconds; at the end (Ctrl-C, --groups, or the run is over) the table and picture of `hero compare`.
What the file leaves out, section by section, is the run's. Verdicts and scores whose settings are the same are the
recorded ones. The run notices nothing: what it trims before the shadow came is lost to the shadow, and counted.
The log in --out is one for `hero compare` and `hero score --from-run`.""",
        ("verifier", "reward_model", "reward", "learner"),
    ),
    "top": Command(
        calls.at("deploy.monitor.command:run"),
        "What a run does, live: queues, processes, rewards, books, what anybody waits for; its latest groups.",
        """  hero top --url redis://head:6379/0                   the only run there
  hero top --run runs/quickstart/hero                  the folder of a run that has a server of its own
  hero top --run quickstart-1f2e3d --once              print and end; --json for scripts

Keys: g the latest groups (n, p: older, newer), o the overview, r look again, q quit. It changes nothing in the
broker: the viewer's user of `hero acl` is enough. A user and its password are best left in REDIS_URL, where no list
of processes shows them. NO_COLOR=1 is without colours.""",
        (),
    ),
    "report": Command(
        calls.at("deploy.report.command:run"),
        "Runs as one HTML page: plots, tables, their groups to leaf through; from their folders, without a broker.",
        """  hero report                                          the newest run below runs/
  hero report runs/quickstart/hero                     writes runs/quickstart/hero/report.html
  hero report runs/my --follow                         written anew every 10 s while the run goes on; --every 60
  hero report runs/hero runs/verifier --out both.html  several runs compared: a colour each, settings that differ

The page is one file that asks for nothing: open it in any browser, send it to anybody who may read the prompts and
completions in it. It shows the latest groups, some of every rare status, and a sample of all, and says how many it
leaves out. With --follow it reloads itself, its filters and its place kept, until the run is finished or Ctrl-C.""",
        (),
    ),
    "queue": Command(
        calls.at("deploy.queue:run"),
        "The queues of a run: lag, pending, consumers; and its dead letters: list, show, retry, drop, purge.",
        """  hero queue lag --run runs/quickstart/hero            the folder of a run that has a server of its own
  hero queue list --run quickstart-1f2e3d --url redis://head:6379/0
  hero queue show 1795281650598-0 --run ...            reason, traceback, origin and the message itself
  hero queue retry 1795281650598-0 --run ...           its ticket once more, as the next attempt
  hero queue drop 1795281650598-0 --run ...            forget it; the books keep the ticket as dead-lettered
  hero queue purge --run ...                           forget all of them""",
        (),
    ),
    "doctor": Command(
        calls.at("deploy.doctor.command:run"),
        "Is this machine, are these settings and their broker fit for a run? What is not, with what to do.",
        """  hero doctor my.toml                                  all that `hero up my.toml` needs
  hero doctor my.toml --broker.url redis://head:6379/0 the broker too: version, eviction, persistence, rights, room
  hero doctor my.toml --role actor --strict && hero actor my.toml --run.id quickstart-1f2e3d
  hero doctor my.toml --only broker,rights             these checks alone
  hero doctor my.toml --json                           for scripts

Each line is ok, skipped (and why), warning, or error: a run would fail or lose something. It changes nothing in the
broker, downloads no weights and runs no code of a model. Without a broker it says which server `hero up` would
start, and checks the rest. A user and its password are best left in REDIS_URL, where no list of processes shows them.

exit codes: 0 no error; 1 an error, or with --strict a warning; 2 the settings are refused. With --json they are in the
object too: {"exit_code", "counts", "findings": [{"check", "level", "found", "remedy"}]}.""",
        RUN_SECTIONS,
    ),
    "acl": Command(
        calls.at("deploy.acl:run"),
        "Users for the broker's ACL file, one for each role with its rights alone, and their new passwords.",
        """  hero acl --url rediss://head:6379/0 > users.acl      the server reads it by its setting `aclfile`
  hero acl --url ... --run 'team-a.*' > users.acl      these users reach only runs whose id begins so

The addresses with their passwords are shown on the terminal, once. hero-admin may do everything, hero-queue what
`hero queue` does, hero-viewer look (`hero top`); `hero up` takes the learner's.""",
        (),
    ),
}

"""Every error that a user can meet, as one tree. Each says what happened, with values, then what to do.

HeroError                   exit code 1
├── ConfigError             2   a setting is unknown, impossible or contradicts another
├── DataError               3   a data file cannot be used at all
├── ModelError              4   a model or tokenizer is missing or incompatible
├── RunFolderError          5   the run folder holds another run, or cannot be written
├── BrokerError             6   Redis or Valkey cannot be used
│   ├── BrokerUnavailable       nobody answers
│   └── BrokerUnfit             too old, evicting, wrong role
├── WeightsError            7   published weights are missing, torn or do not match
│   └── SamplerMismatch         the engine's log-probabilities are not the learner's
├── CheckpointError         8   a checkpoint is torn or belongs to another run
│   └── DiskFull                no space left; the last good state is untouched
├── Fenced                  9   a newer learner has taken over this run
├── BooksError              10  the ledger does not balance
├── ChildFailed             11  a process of the run died too often
├── SchemaError             12  a message is not ours, truncated, or over a limit
│   └── NewerWire               it is of a later release than this process
├── QueueError              13  hero queue was asked for what is not there, or could not do all of it
├── ShadowError             14  hero shadow was asked for a run that is not there, or a name that is taken
├── Diverged                15  gradients stay not finite
├── RankLost                16  another rank of the learner is gone; its log says why
└── MemoryFull              17  a micro-batch does not fit into memory; the next start takes half of it
"""

from __future__ import annotations


class HeroError(Exception):
    """Base of all errors that are reported without a traceback; `exit_code` is the process's."""

    exit_code = 1


class ConfigError(HeroError):
    exit_code = 2


class DataError(HeroError):
    exit_code = 3


class ModelError(HeroError):
    exit_code = 4


class RunFolderError(HeroError):
    exit_code = 5


class BrokerError(HeroError):
    exit_code = 6


class BrokerUnavailable(BrokerError):
    pass


class BrokerUnfit(BrokerError):
    pass


class WeightsError(HeroError):
    exit_code = 7


class SamplerMismatch(WeightsError):
    pass


class CheckpointError(HeroError):
    exit_code = 8


class DiskFull(CheckpointError):
    pass


class Fenced(HeroError):
    exit_code = 9


class BooksError(HeroError):
    exit_code = 10


class ChildFailed(HeroError):
    exit_code = 11


class SchemaError(HeroError):
    exit_code = 12


class NewerWire(SchemaError):
    pass


class QueueError(HeroError):
    exit_code = 13


class ShadowError(HeroError):
    exit_code = 14


class Diverged(HeroError):
    exit_code = 15


class RankLost(HeroError):
    exit_code = 16


class MemoryFull(HeroError):
    exit_code = 17

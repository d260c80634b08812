"""How new weights get from the learner to the actors.

layout    names, dtypes, shapes, and the place of each tensor in its file
folder    versions as files in a folder that both sides see, or in an actor's own
delta     what an optimizer step changed in a piece of a tensor
chunks    a version, or what changed in it, as messages of 4 MiB
"""

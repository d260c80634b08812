"""Whether two written answers mean the same: what is written is brought to one spelling (latex), read as a form
(forms), and compared by rules that have names (compare). Scalars are read and compared by math-verify (engine)."""

"""Public benchmarks: their files, their scores by exact rules, and what a difference between two models is worth.

One file a scoring (`choice`, `yes_no`, `number`, `ratio`, `free_text`); `scorings` names them all.
"""

"""Data sets of training: one file each, with its examples, its metric and its reward; `registry` lists them all."""

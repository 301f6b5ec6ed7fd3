"""A robot's day in bags: what was asked and answered, what people said of it later, and reading all that again."""

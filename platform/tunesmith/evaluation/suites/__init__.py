"""The suites of the test bench: each asks one question of a target and answers with numbers that have intervals."""

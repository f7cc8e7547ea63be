"""The programming model, sentence by sentence: each test names the one it is of."""

"""The three boxes of the paper's figure: understanding, generation, synthesis."""

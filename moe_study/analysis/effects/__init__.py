"""What a whole study says beyond pairs: equal cost, fronts, effects of a grid, power, and the price of the leak."""

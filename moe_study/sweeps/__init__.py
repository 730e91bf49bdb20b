"""From overrides to trained runs: compose, plan (grid -> runs), launch, look at what became of them."""

"""From a sweep file or overrides to a plan: compose, expand, validate, deduplicate. Starts nothing."""

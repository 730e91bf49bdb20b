"""One HTML file that holds a whole study: answers, tables, interactive plots, what experts do, texts, configurations.

It renders what a Study holds and what findings and traces in run folders hold; no model is loaded, and nothing in it is
fetched from a network.
"""

"""Documentation out of packages: archives, their formats, cleaning, and what is kept between preparations.

sources.py      which packages, which of their files, in which languages
packages.py     fetches packages, by pip or by apt in a root of its own
archives.py     members of wheels, tarballs and Debian packages, in memory, within limits
markup.py, manual.py, plain.py, api.py, descriptions.py     formats -> paragraphs
cleaning.py     which paragraphs are text, seen before, or in the wrong language
parts.py        what was extracted of a package, kept with its hash
attribution.py  who wrote what
"""

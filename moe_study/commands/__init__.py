"""The subcommands of moe-study, one file each: what they take, and which part of the package does the work."""

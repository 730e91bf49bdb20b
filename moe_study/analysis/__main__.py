import sys

from moe_study.analysis.report import main

sys.exit(main())

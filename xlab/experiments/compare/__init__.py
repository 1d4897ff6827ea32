"""Methods side by side: several labs at once, measured in interleaved rounds.

methods.py     "weave:datapath=fastdp" → what is built            plan.py   how much is measured
rounds.py      builds the labs and measures, round by round   ──> journal.jsonl
journal.py     what happened so far, so that a killed comparison goes on
evaluation.py  journal ──> compare.json: ratios, places           noise.py  can it be trusted?
"""

"""What records say, for people: figures, tables, Markdown, a page.

    records ──> tables.py     figures as columns of text      ──> cli/screens/ (a terminal)
                comparison.py the outcome of a comparison, likewise
                text.py       how a figure or a path is worded
                conclusion.py which is fastest, why, and whether the tunnel carries it
                machine.py    whether the machine was quiet
                prose.py      the verdict, how it was measured
                topology.py   hosts, addresses, the way of a packet
                portraits.py  what a method builds, what others measured
                content.py    all that a report is about      ──> forms/: a module each
    picture.py (SVG)   charts.py, lines.py, line_chart.py ──> gallery.py, drawing.py (matplotlib)

Nothing here measures, builds or draws on a terminal, and nothing is read but records.
"""

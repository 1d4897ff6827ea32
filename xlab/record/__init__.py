"""What results are made of: their schemas, read and written strictly, and the statistics on them.

Everything that measures writes these, everything that reports reads them.  Nothing here measures,
builds, or words anything for a reader.
"""

"""What students hand in, and what comes of it.

typed        what somebody has typed in a lab, as a draft of what to hand in
submission   a script a host and answers: packed, and read from what anybody may have made
replay       one of them done again in a contained lab of the student's own variant, and judged
worker       the process that does that, without rights
course       many of them at a time: found, shared out, limited, gone on with
outcome      what came of one, as a document (`record.grade`)
exports      the same in others' forms: CSV, JUnit, Gradescope, Classroom 50
"""

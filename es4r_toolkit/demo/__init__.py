"""The web page of ``es4r demo``: talk to a model, hear it answer, and see why it answers so."""

"""Who runs it: one supervisor on each box, one warm runner process for each slot."""

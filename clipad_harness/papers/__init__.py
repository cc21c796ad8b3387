"""What papers print, claim and leave open, and verdicts on it."""

"""What is stored of a job: what was asked, where, what happened, what was measured."""

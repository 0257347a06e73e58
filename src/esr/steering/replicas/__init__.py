"""Several engines at work on one study, each in a process of its own, on one machine or many (extra ``ray``)."""

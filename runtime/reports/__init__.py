"""What a run leaves for people: a folder with everything about it, and a page that shows it, also while it goes on.

record.py       a run as read back: events, settings, environment, evidence
recording.py    the sink that fills the folder and the live page while a run goes on
folder.py       making the folder: the model as compiled, settings, environment
environment.py  versions, processor, memory
evidence.py     what is measured once training is over: layer times, filters, confusion, mistakes (pictures.py)
series.py       events as curves, thinned out to what a screen can show
page.py         the page, one file that needs no network (pages/)
serve.py        the same page live
command.py      `sparknet-report`
"""

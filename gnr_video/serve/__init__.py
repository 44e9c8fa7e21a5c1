"""A service for other programs: jobs come over HTTP, and are translated one after the other on one engine.

run.py           put together from the command's options, and ended
folder.py        where everything lies: lock, token, a folder for each job
store.py         the jobs, in SQLite: what they are, which is next
worker.py        translates them
job_options.py   what can be chosen for a job, and the option objects made of it
description.py   every operation declared: what is let in, and the OpenAPI document
schema.py        the part of JSON Schema that the declarations use, and its check
access.py        who may ask
api.py           the operations, answered
shown.py         a job as clients see it
uploads.py       files on their way in
service.py       the server, on a thread of its own
"""

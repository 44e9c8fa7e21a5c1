"""What all servers of the project share: the live page's and the service's.

address.py   where they serve: parsed, told local from remote, bound
sites.py     requests that other web sites make through a user's browser
handed.py    files that strangers hand over: named safely, looked at before they are decoded
measure.py   how large a picture is, by its header
"""

"""Long videos, rendered in segments that survive a crash: what is whole is kept, and joined at the end.

`plan` says where segments begin, `render` makes some of them, `store` keeps them beside the output, `run` puts all
together. A segment can be made by any process: `render.render_segment` takes nothing but values that travel.
"""

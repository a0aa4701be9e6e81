"""The search for the best variant under a promise: what to try next, what was found, what to recommend.

Everything here is a function of the goal and of the trials so far, so that a search can stop anywhere and go on, on
another machine too: goal, survey → `plan` → recipes → (made, judged, measured elsewhere) → trials → `conclude`.
"""

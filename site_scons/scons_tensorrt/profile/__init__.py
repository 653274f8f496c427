"""The profile of a run: what each thread did, and when. Not imported without PROFILE=."""

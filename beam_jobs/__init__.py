"""The Beam jobs: arguments and wiring, no logic. `pairmill build` is `python -m beam_jobs.build_dataset`."""

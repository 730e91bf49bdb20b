"""Sweeps on a cluster: submit what is missing, leave, lose jobs, come back with the same command.

Hydra composes and `sweeps/` plans, as on one machine; sbatch submits, by itself rather than through submitit, whose
pickled results stand beside the run folders and contradict them. What is true stands in the run folders; a record of
jobs (runs/job_records.py) and the scheduler's word are advice that saves needless jobs.

- **A submission** is one array of jobs and one folder, RUNS_DIR/.submissions/NAME, written before sbatch is called and
  confirmed with the array's id after. NAME is unique and is also the jobs' name, by which they are found in the queue:
  one whose driver was killed before it could confirm, too, and never the job of the same number of a cluster that
  counts anew. Arrays are cut to the cluster's MaxArraySize, and shrink, then wait, where it limits jobs by user.
- **The driver** (driver.py) holds a lock on the records while it looks and submits. Each round it asks the scheduler
  once (survey.py) and submits the runs that are missing and have no living job. It waits, or with wait=false leaves;
  killed and issued again it joins what lives. A scheduler that does not answer, or answers with a state that nobody
  listed, means "not known", and what is not known counts as alive.
- **A job** (job.py, task.py) takes the lock of its run, or leaves the run to the living process that has it, so that
  even two jobs for one run train it once. It exits with an error if its run failed, so that SLURM says so, too. On
  the scheduler's warning (SIGUSR2, or SIGTERM of a preemption) it saves a checkpoint, and requeues itself unless SLURM
  has done so or the job was cancelled: then its state is not RUNNING any more. Attempts are capped, counted in the
  run's folder. The handler of signals is installed before anything is imported.
- **What a cluster wants** (profile.py: partition, modules, container) is apart from what a run asks for (settings.py).
  Several ranks, on one node or many, and what trains in a container are a step that the job starts (step.py, train.py);
  the job itself stays outside, where SLURM's commands are.
- **The code** that a job imports is a copy taken at submission (snapshot.py): edits while jobs wait change no run.
- **The seam**: all calls of SLURM's commands are in scheduler.py; tests put a scripted scheduler in its place.
"""

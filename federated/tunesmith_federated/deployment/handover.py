"""What a site is given beside its keys: a ``site.yaml`` to fill in, and how to begin."""

from __future__ import annotations

from pathlib import Path

from tunesmith_federated.deployment.certificates import write_secret

SITE_YAML = """\
# {name}'s word in the federation {federation}: nothing is done here that this file does not allow.
# `tunesmith site check --config site.yaml` says what it means; `tunesmith site join --config site.yaml` joins.

name: {name}
server: {server}

# Where the data lies and which columns the task reads. None of it leaves this machine, these names included.
data:
  train: data.csv                # a file, folder or glob, relative to this file
  # columns: {{text: note, label: finding}}
  # test: held-out.csv           # rows to judge by; without it they are split off
  # split: {{test: 0.2}}

allow:
  # Recipes by fingerprint. What the server asks first lies in state/asked/FINGERPRINT.yaml: read it, then write its
  # fingerprint here. `recipes: any` trusts the server with every recipe.
  recipes: []
  # Or all recipes that somebody has signed whom you trust: what `tunesmith federation signer` printed, under a name of yours.
  # signers: {{ethics-board: "ed25519:…"}}
  # Base models by name or pattern. They must lie on this machine, or be downloadable.
  base_models: []                # such as [google-bert/*, prajjwal1/bert-tiny]; NAME@REVISION for another one than main

limits:
  rounds: 100                    # the most rounds of a job
  epochs: 100                    # the most passes over the data in a job
  seconds: 86400                 # the most time of this machine that a job gets
  least_cohort: 2                # the fewest sites that a job must be made of
  min_examples: 10               # nothing that rests on fewer rows is reported

resources: {{cpus: 1, gpus: 0}}  # with num_workers: 2 two processes train together, each on a GPU where gpus: 2 gives them
"""

README = """\
{name} in the federation {federation}

This folder holds the keys of the site {name}. Whoever has it is {name}: keep it readable to one user, and send it only
over a channel that you trust. The certificate ends on {expires}.

    ca.crt      the federation's authority: the server is recognised by it
    site.crt    this site's certificate          site.key    its key
    node.key    signs what this site sends       node.pub    its public half
    site.yaml   what may be done here, yours to fill in

1. Install the Tunesmith that the server has: in its source, pip install -c constraints.txt .
2. Edit site.yaml: where the data lies, which recipes and base models are allowed.
3. tunesmith site check --config site.yaml
4. tunesmith site join --config site.yaml

The site opens no port. It calls {server} and needs nothing else from the network.
What was asked, done, refused and sent stands in state/audit.jsonl: tunesmith site audit --config site.yaml
"""


def write(folder: Path, name: str, federation: str, server: str, expires: str) -> None:
    """Write ``site.yaml`` and ``README.txt``; a ``site.yaml`` that is there stays."""
    values = {"name": name, "federation": federation, "server": server, "expires": expires[:10]}
    if not (folder / "site.yaml").exists():
        write_secret(folder / "site.yaml", SITE_YAML.format(**values).encode())
    write_secret(folder / "README.txt", README.format(**values).encode())

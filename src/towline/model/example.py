"""The commented job file that ``tow init`` writes; it loads as it is."""

EXAMPLE = """\
# A job of three tasks. Run it:             tow run job.yaml
# with another parameter:                   tow run job.yaml -p greeting=hi
# All fields and what they mean:            tow schema

name: example
params:
  greeting: hello            # {{params.greeting}} stands for it in the texts below

tasks:
  split:
    # An image in an OCI layout, made for example by:
    #   skopeo copy docker://docker.io/library/busybox:1.36 oci:./images/busybox:1.36
    # From a registry it is just busybox:1.36, or ghcr.io/org/app@sha256:...
    image: oci:./images/busybox:1.36
    command: ["sh", "-c", "for i in 0 1 2 3; do echo {{params.greeting}} $i > $TOW_OUT/part-$i; done"]
    resources: {cpu: 0.5, memory: 64Mi}

  count:
    image: oci:./images/busybox:1.36
    needs: [split]           # starts when split has succeeded
    array: 0-3               # four elements; TOW_INDEX or {{index}} tells them apart
    inputs: {split: /in/split}      # what split wrote under TOW_OUT, read-only
    command: ["sh", "-c", "wc -c < /in/split/part-{{index}} > $TOW_OUT/size"]
    resources: {cpu: 0.5, memory: 64Mi}
    timeout: 1m
    retries: {limit: 2, backoff: {first: 1s, factor: 2, max: 30s}}

  report:
    image: oci:./images/busybox:1.36
    needs: [count]
    inputs: {count: /in/count}      # of an array: /in/count/0, /in/count/1, ...
    command: ["sh", "-c", "cat /in/count/*/size"]
    resources: {cpu: 0.5, memory: 64Mi}

# Further fields of a task:
#   env: {LC_ALL: C}
#   mounts: [{source: ./data, target: /data, readonly: true}]
#   network: host            # none by default
#   workdir: /work
#   grace: 10s               # from SIGTERM to SIGKILL
#   runtime: process         # a plain process of this machine: no image, no isolation
#   user: "1000:1000"        # the image's by default
#   capabilities: [NET_RAW]  # none by default
#   require: [userns, disk]  # only where the runtime gives these
#   secrets: {TOKEN: my-token}      # as a file, $TOW_SECRETS/TOKEN
#   resources: {gpu: 0.5, disk: 2Gi}            # gpu: 2, or {count: 1, model: [A100, H100]}
#   where: {zone: b, disk: "!= hdd"}            # only on such nodes; prefer: the same as a wish
#   limit: {key: database, max: 3}              # at once, over all jobs
#   expect: 20m              # how long it probably takes
"""

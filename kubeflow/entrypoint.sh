#!/bin/sh
# The image is two things: `mnist-tfx` for people, and a Beam worker for Dataflow and for Flink's and Spark's worker pools,
# which pass their own options and no command.
case ${1:-} in
  --help) exec mnist-tfx "$@" ;;
  --*) exec /opt/apache/beam/boot "$@" ;;
  *) exec mnist-tfx "$@" ;;
esac

//! Tests against a real Docker engine, named by `DOCKER_HOST`: `sh tests/all.sh` brings one.

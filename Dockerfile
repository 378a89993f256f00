# Weir's image: a Python, Weir's own environment over it, nothing else. BuildKit builds it (`make image`), `make image-test`
# proves it. Python 3.13 is the default because it takes some 6 % less CPU a request than 3.11, and has until 2029.
#
#   BASE      what it runs on: Python 3.11 or later, CA certificates, and neither a shell nor pip need be there. A release
#             names it by digest, so that one commit gives one image.
#   BUILDER   what builds it: the same Python at the same place with `venv`, where BASE has none (a distroless one).
#   EXTRAS    `grpc`: traces by OTLP over gRPC. Not by default: grpcio adds 19 MB to 83, and every collector that takes
#             gRPC on port 4317 takes the same by HTTP on 4318. `embedded` is for laptops; here Redis is another container.
#
# An index of your own goes in as a secret and stays out of every layer and of the history:
#   docker build --secret id=pip,src=pip.conf [--secret id=ca,src=ca.pem, and in pip.conf: cert = /run/secrets/ca] .
ARG BASE=python:3.13-slim-trixie
ARG BUILDER=${BASE}


FROM ${BUILDER} AS build
ARG EXTRAS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# pip works from an environment of its own and installs into Weir's, which therefore never holds a pip.
RUN touch /before && python3 -m venv /pip && python3 -m venv --without-pip /opt/weir && rm /opt/weir/bin/[Aa]ctivate*

# Each file by its hash, and only wheels: nobody's setup.py runs here.
COPY requirements*.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca --mount=type=cache,target=/root/.cache/pip \
    /pip/bin/pip -q --python /opt/weir/bin/python install --require-hashes --only-binary :all: --no-compile \
        -r "requirements${EXTRAS:+-$EXTRAS}.lock" \
    && /pip/bin/pip -q install --require-hashes --only-binary :all: -r requirements-build.lock

# What no server reads: others' tests and commands, C and Cython sources, types. The one command here is `weir`.
# Byte code is not compared with its source at each start: neither can change here. The same sources give the same bytes.
RUN cd /opt/weir/lib/python3*/site-packages \
    && find . -type d \( -name tests -o -name test \) -prune -exec rm -r {} + \
    && find . -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.pyi' \) -delete \
    && find /opt/weir/bin -mindepth 1 ! -name 'python*' -delete \
    && /opt/weir/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .

# The standard library's byte code, where the base has none (Docker's own Python images): without it each start takes 0.3 s
# more and each command 0.2. By time stamp, so that another standard library than this one does not run it.
RUN library=$(/opt/weir/bin/python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
    && /opt/weir/bin/python -m compileall -q -j 0 --invalidation-mode timestamp \
        -x '/(test|tests|distutils|idlelib|lib2to3|tkinter|turtledemo|ensurepip|config-[^/]*|(site|dist)-packages)/' "$library" \
    && mkdir /library \
    && find "$library" -name '*.pyc' -newer /before ! -path '*/ensurepip/*' -exec cp --parents -t /library {} +

# Our own code apart, under /own: a release that changes no dependency is a layer of a megabyte.
COPY pyproject.toml README.md LICENSE ./
COPY service/weir service/weir
RUN /pip/bin/python -m hatchling build -t wheel -d /wheel \
    && /pip/bin/pip -q --python /opt/weir/bin/python install --root /own --no-deps --no-index --no-compile /wheel/*.whl \
    && /opt/weir/bin/python -m compileall -q -s /own --invalidation-mode unchecked-hash /own


FROM ${BASE}
ARG BASE
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=""
LABEL org.opencontainers.image.title="weir" \
      org.opencontainers.image.description="One internal endpoint for every LLM" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

# No RUN from here on: a base without a shell is a good base.
COPY --from=build /library /
COPY --from=build /opt/weir /opt/weir
COPY --from=build /own/opt/weir /opt/weir

# PYTHONSAFEPATH: a file beside the configuration is never imported by mistake. HOME and /tmp are one: the only place that
# is written to (metrics of several workers), and with a read-only root the only one that has to be mounted.
ENV PATH=/opt/weir/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONSAFEPATH=1 \
    HOME=/tmp

# `weir check` and `--config weir.yaml` look here first; mount the configuration as /etc/weir/weir.yaml.
WORKDIR /etc/weir
USER 65532:65532
EXPOSE 8080 9090
STOPSIGNAL SIGTERM

# For compose; Kubernetes has probes of its own. Neither curl nor a proxy from the environment comes into it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["python", "-c", "import http.client, os, sys; \
ops = http.client.HTTPConnection('localhost', int(os.environ.get('WEIR_SERVER__OPS_PORT', 9090)), timeout=2); \
ops.request('GET', '/livez'); sys.exit(ops.getresponse().status != 200)"]

ENTRYPOINT ["weir"]
CMD ["serve"]

# Bandstand's image: all roles and the command line, without the local servers and the demo's extras.
FROM python:3.11.15-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# First what changes seldom: the locked dependencies are a layer of their own.
COPY locks/build.txt locks/runtime.txt locks/
RUN python -m venv /opt/build && /opt/build/bin/pip install --require-hashes -r locks/build.txt
RUN python -m venv /opt/bandstand && /opt/bandstand/bin/pip install --require-hashes -r locks/runtime.txt

COPY pyproject.toml README.md LICENSE ./
COPY bandstand bandstand
COPY archive archive
COPY demo demo
COPY learners learners
COPY local local
COPY schemas schemas
COPY serving serving
COPY simulation simulation
COPY streams streams
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/bandstand/bin/pip install --no-deps --no-index /wheel/*.whl \
    && /opt/bandstand/bin/pip check \
    && /opt/bandstand/bin/bandstand --version

FROM python:3.11.15-slim-bookworm
RUN useradd --system --uid 10001 --create-home --shell /usr/sbin/nologin bandstand
COPY --from=build /opt/bandstand /opt/bandstand
ENV PATH=/opt/bandstand/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /home/bandstand
ENTRYPOINT ["bandstand"]

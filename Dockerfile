# The platform's image: small, not root, built from the lock file. Needs no BuildKit.
#   docker build --build-arg BASE_IMAGE=python:3.13-slim -t taskyard .
ARG BASE_IMAGE=python:3.13-slim
FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /opt/taskyard \
 && /opt/taskyard/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY taskyard taskyard
RUN /opt/taskyard/bin/pip install --no-cache-dir --no-deps . \
 && /opt/taskyard/bin/pip uninstall --quiet --yes pip

FROM ${BASE_IMAGE}
# Base images carry no bytecode of the standard library, and our user may not write any: each start would compile it.
RUN useradd --create-home --uid 10001 taskyard \
 && install -d -o taskyard -g taskyard /app /data \
 && python3 -m compileall -q -x '/(ensurepip|idlelib|pydoc_data|site-packages|test|tkinter|turtledemo)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/taskyard /opt/taskyard
ENV PATH=/opt/taskyard/bin:$PATH PYTHONUNBUFFERED=1 TASKYARD_DATA=/data
USER taskyard
WORKDIR /app
COPY audit audit
COPY beat beat
COPY config config
COPY tasks tasks
CMD ["celery", "-A", "tasks", "up"]

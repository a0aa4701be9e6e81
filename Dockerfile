# One image for web, worker, control, beat, mlflow and serving; docker-compose.yml says which runs what.
FROM python:3.12-slim AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_LINK_MODE=copy
RUN python -m venv /opt/slipway
ENV PATH=/opt/slipway/bin:$PATH VIRTUAL_ENV=/opt/slipway
COPY locks /locks
# Packages first: they change seldom, the source often.
RUN pip install --require-hashes -r /locks/uv.txt \
    && uv pip install --compile-bytecode --require-hashes -r /locks/base.txt -r /locks/s3.txt

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin slipway \
    && install -d -o slipway -g slipway -m 700 /var/lib/slipway /var/lib/slipway-trust
COPY --from=packages /opt/slipway /opt/slipway
COPY . /opt/app
WORKDIR /opt/app
ENV PATH=/opt/slipway/bin:$PATH VIRTUAL_ENV=/opt/slipway \
    PYTHONUNBUFFERED=1 DJANGO_SETTINGS_MODULE=slipway.settings SLIPWAY_HOME=/var/lib/slipway SLIPWAY_HOST=0.0.0.0
RUN uv pip install --no-deps --no-build-isolation --editable . \
    && python -m compileall -q /opt/app
USER slipway
VOLUME /var/lib/slipway
EXPOSE 8000 8080 8081
CMD ["python", "-m", "serving"]

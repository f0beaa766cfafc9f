# docker build -f packaging/docker/cpu.Dockerfile -t refattn .
# docker run --rm -v "$PWD:/work" refattn train
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir /src && rm -rf /src
# Kernels are compiled on first use; a volume on /cache keeps them.
ENV NUMBA_CACHE_DIR=/cache MPLCONFIGDIR=/cache
RUN mkdir -m 1777 /cache
WORKDIR /work
ENTRYPOINT ["refattn"]

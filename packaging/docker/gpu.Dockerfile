# docker build -f packaging/docker/gpu.Dockerfile -t refattn-gpu .
# docker run --rm --gpus all -v "$PWD:/work" refattn-gpu train --device cuda
# The image has no driver: that of the host, for CUDA 13, is what the container sees.
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir '/src[cuda]' && rm -rf /src
ENV NUMBA_CACHE_DIR=/cache MPLCONFIGDIR=/cache CUPY_CACHE_DIR=/cache/cupy
RUN mkdir -m 1777 /cache
WORKDIR /work
ENTRYPOINT ["refattn"]

# A server with the small model inside, on the CPU:
#     docker build -t imagebind .
#     docker run -e IMAGEBIND_TOKEN=secret -p 8000:8000 imagebind
# PIP_OPTIONS takes an index of CPU builds of PyTorch, which make the image some gigabytes smaller.
FROM python:3.12-slim
ARG PIP_OPTIONS=""
WORKDIR /app
COPY . /app
RUN pip install --no-cache-dir ${PIP_OPTIONS} '/app[serve]'
USER nobody
ENV IMAGEBIND_HOME=/tmp/imagebind
EXPOSE 8000
ENTRYPOINT ["imagebind", "serve"]
CMD ["--host", "0.0.0.0"]

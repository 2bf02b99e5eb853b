# Trains and fills, on the processor or on a GPU (docker run --gpus all):
#   docker build -t gicinpaint .
#   docker run --rm -v "$PWD:/work" gicinpaint train experiment=quickstart
#   docker run --rm -v "$PWD:/work" gicinpaint inpaint input=photo.jpg masks=mask.png output=filled
# For the processor alone, a smaller image: docker build --build-arg INDEX=https://download.pytorch.org/whl/cpu -t gicinpaint .
FROM python:3.13-slim
ARG INDEX=https://pypi.org/simple
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY src src
COPY weights weights
RUN pip install --no-cache-dir --extra-index-url "$INDEX" --constraint constraints.txt ".[demo]" \
    && useradd --uid 1000 --create-home user && mkdir /work && chown user /work
USER 1000
WORKDIR /work
ENTRYPOINT ["gicinpaint"]
CMD ["--help"]

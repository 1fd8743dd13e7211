# A standalone cluster on EC2: terraform init && terraform apply; in the end, terraform destroy.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

provider "aws" {
  region = {{ ec2.region | hcl }}
}

locals {
  name    = {{ ("sparknet-" ~ job.name) | hcl }}
  machine = {{ ec2.machine | hcl }}
  key     = {{ ec2.key | hcl }}
  disk    = {{ ec2.disk }}
  workers = {{ job.workers }}
}

data "aws_ami" "ubuntu" {
  most_recent = true
  owners      = ["099720109477"] # Canonical
  filter {
    name   = "name"
    values = ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"]
  }
}

# The machines reach each other at every port, which averaging by ring needs; others only ssh.
resource "aws_security_group" "cluster" {
  name        = local.name
  description = "SparkNet cluster"

  ingress {
    description = "among the machines"
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    self        = true
  }
  ingress {
    description = "ssh"
    from_port   = 22
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = [{{ ec2.ssh_from | hcl }}]
  }
  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_instance" "master" {
  ami                    = data.aws_ami.ubuntu.id
  instance_type          = local.machine
  key_name               = local.key
  vpc_security_group_ids = [aws_security_group.cluster.id]
  user_data              = templatefile("${path.module}/cloud-init.yaml", { class = "master.Master", arguments = "" })
  tags                   = { Name = "${local.name}-master" }

  metadata_options {
    http_tokens = "required"
  }
  root_block_device {
    volume_size = local.disk
    encrypted   = true
  }
}

resource "aws_instance" "worker" {
  count                  = local.workers
  ami                    = data.aws_ami.ubuntu.id
  instance_type          = local.machine
  key_name               = local.key
  vpc_security_group_ids = [aws_security_group.cluster.id]
  user_data = templatefile("${path.module}/cloud-init.yaml", {
    class     = "worker.Worker"
    arguments = "spark://${aws_instance.master.private_ip}:7077"
  })
  tags = { Name = "${local.name}-worker-${count.index}" }

  metadata_options {
    http_tokens = "required"
  }
  root_block_device {
    volume_size = local.disk
    encrypted   = true
  }
{% if ec2.spot %}
  instance_market_options {
    market_type = "spot"
  }
{% endif %}
}

output "login" {
  value = "ssh ubuntu@${aws_instance.master.public_ip}"
}

output "master" {
  value = "spark://${aws_instance.master.private_ip}:7077"
}

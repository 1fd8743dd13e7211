#include "core/message.h"

#include <stdexcept>

namespace sparknet {

Message::Message() {
  static const auto none = std::make_shared<const MessageSchema>();
  schema_ = none;
}

FieldValue& Message::field(const std::string& name) {
  using Fields = std::map<std::string, FieldValue>;
  if (!fields_) {
    fields_ = std::make_shared<Fields>();
  } else if (fields_.use_count() > 1) {
    fields_ = std::make_shared<Fields>(*fields_);
  }
  return (*fields_)[name];
}

const FieldValue& Message::value(const std::string& name) const {
  if (fields_) {
    const auto written = fields_->find(name);
    if (written != fields_->end()) return written->second;
  }
  const auto preset = schema_->defaults.find(name);
  if (preset != schema_->defaults.end()) return preset->second;
  throw std::logic_error(schema_->name + " has no field " + name);
}

Message Message::empty(const std::string& name) const {
  const auto child = schema_->children.find(name);
  if (child == schema_->children.end()) throw std::logic_error(schema_->name + " has no message " + name);
  return Message(child->second);
}

int64_t Message::integer(const std::string& name) const {
  const auto& values = value(name).integers;
  return values.empty() ? 0 : values.front();
}

double Message::real(const std::string& name) const {
  const auto& values = value(name).reals;
  return values.empty() ? 0.0 : values.front();
}

const std::string& Message::text(const std::string& name) const {
  static const std::string empty;
  const auto& values = value(name).texts;
  return values.empty() ? empty : values.front();
}

const Message& Message::message(const std::string& name) const {
  const auto& values = value(name).messages;
  if (!values.empty()) return values.front();
  auto& made = absent_[name];
  if (!made) {
    const auto child = schema_->children.find(name);
    if (child == schema_->children.end()) throw std::logic_error(schema_->name + " has no message " + name);
    made = std::make_shared<const Message>(child->second);
  }
  return *made;
}

const std::vector<int64_t>& Message::integers(const std::string& name) const { return value(name).integers; }
const std::vector<double>& Message::reals(const std::string& name) const { return value(name).reals; }
const std::vector<std::string>& Message::texts(const std::string& name) const { return value(name).texts; }
const std::vector<Message>& Message::messages(const std::string& name) const { return value(name).messages; }

}  // namespace sparknet
